// Gold's 500 users, held: what is done to the stack meanwhile is the runner's business (loadtests/disrupt).
import { iterate, setup, tier } from './mix.js';

export const options = tier([[5, 500], [Number(__ENV.SECONDS), 500], [2, 0]]);
export { setup };
export default iterate;
