export { signToken, type TokenClaims } from '../../../tools/embedded/token.mjs';
