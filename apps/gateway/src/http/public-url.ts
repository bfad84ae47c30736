import type { GatewayConfig } from '../config.js';

/** Where browsers reach the gateway, without a slash at the end: what URLs of sockets begin with. */
export function publicUrl({ publicWsUrl, port }: Pick<GatewayConfig, 'publicWsUrl' | 'port'>): string {
  return (publicWsUrl ?? `ws://localhost:${port}`).replace(/\/+$/, '');
}
