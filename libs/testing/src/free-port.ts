export { freePort } from '../../../tools/embedded/process.mjs';
