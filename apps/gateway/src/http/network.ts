import type { IncomingMessage } from 'node:http';
import { BlockList, isIP, isIPv6 } from 'node:net';

/**
 * Whose an address is, as far as limits go: of IPv6 the /64, since whoever has one address has all of its network.
 * An IPv4 address inside an IPv6 one is that IPv4 address. What is no IPv6 address stays as it is.
 */
export function networkOf(address: string): string {
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address);
  if (mapped) return mapped[1]!;
  if (!isIPv6(address) || address.includes('.')) return address;
  const [head = '', tail] = address.split('::');
  const groups = head.split(':').filter(Boolean);
  if (tail !== undefined) {
    const last = tail.split(':').filter(Boolean);
    groups.push(...Array<string>(8 - groups.length - last.length).fill('0'), ...last);
  }
  return groups
    .slice(0, 4)
    .map((group) => Number.parseInt(group, 16).toString(16))
    .join(':');
}

/**
 * Who sent a request: the connection's peer, or what a proxy of ours says. Of several addresses the last counts: it is
 * the one that the proxy added, and all before it are what the caller said.
 */
export function addressOf({ headers, socket }: IncomingMessage, trustProxy: boolean): string {
  const peer = socket.remoteAddress ?? '';
  const forwarded = trustProxy ? headers['x-forwarded-for'] : undefined;
  if (forwarded === undefined) return peer;
  const told = String(forwarded);
  return withoutPort(told.slice(told.lastIndexOf(',') + 1).trim()) || peer;
}

/** Some proxies add the port. */
function withoutPort(address: string): string {
  return /^\[([^\]]*)\](?::\d+)?$/.exec(address)?.[1] ?? /^([\d.]+):\d+$/.exec(address)?.[1] ?? address;
}

const RANGE = /^([^/]+)\/(\d{1,3})$/;

/** Whether a text is a range of addresses, such as `10.0.0.0/8` or `2001:db8::/32`. */
export function isRange(text: string): boolean {
  const [, address = '', bits] = RANGE.exec(text) ?? [];
  const version = isIP(address);
  return version !== 0 && Number(bits) <= (version === 4 ? 32 : 128);
}

/** Ranges of addresses, as {@link isRange} takes them. */
export class Ranges {
  readonly #list = new BlockList();

  constructor(ranges: readonly string[]) {
    for (const range of ranges) {
      const [, address = '', bits] = RANGE.exec(range) ?? [];
      this.#list.addSubnet(address, Number(bits), isIPv6(address) ? 'ipv6' : 'ipv4');
    }
  }

  /** IPv4 inside IPv6 is found by either. */
  includes(address: string): boolean {
    const version = isIP(address);
    return version !== 0 && this.#list.check(address, version === 6 ? 'ipv6' : 'ipv4');
  }
}
