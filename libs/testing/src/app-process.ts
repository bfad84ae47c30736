export type { AppName } from '../../../tools/checkout.mjs';
export { AppProcess } from '../../../tools/embedded/app.mjs';
