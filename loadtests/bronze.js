// Bronze: 50 users.
import { iterate, setup, tier } from './mix.js';

export const options = tier([[10, 50], [50, 50], [5, 0]]);
export { setup };
export default iterate;
