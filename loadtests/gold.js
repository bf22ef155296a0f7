// Gold: a tsunami: up to 500 users, held, then 600.
import { iterate, setup, tier } from './mix.js';

export const options = tier([[30, 500], [60, 500], [10, 600], [30, 600], [10, 0]]);
export { setup };
export default iterate;
