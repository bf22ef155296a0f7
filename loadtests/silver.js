// Silver: 200 users.
import { iterate, setup, tier } from './mix.js';

export const options = tier([[15, 200], [60, 200], [5, 0]]);
export { setup };
export default iterate;
