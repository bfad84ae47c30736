import type { IncomingMessage } from 'node:http';
import { describe, expect, it } from '@jest/globals';
import { addressOf, isRange, networkOf, Ranges } from './network.js';

describe('whose an address is', () => {
  it.each([
    ['2001:db8:1:2:3:4:5:6', '2001:db8:1:2'],
    ['2001:DB8:0001:2::1', '2001:db8:1:2'],
    ['2001:db8::1', '2001:db8:0:0'],
    ['2001:db8::1:2:3:4:5', '2001:db8:0:1'],
    ['::1', '0:0:0:0'],
    ['fe80::1%eth0', 'fe80:0:0:0'],
  ])('is of IPv6 the /64: %s', (address, network) => {
    expect(networkOf(address)).toBe(network);
  });

  it('is the IPv4 address inside an IPv6 one', () => {
    expect(networkOf('::ffff:192.0.2.1')).toBe('192.0.2.1');
    expect(networkOf('::FFFF:192.0.2.1')).toBe('192.0.2.1');
  });

  it.each(['192.0.2.1', '64:ff9b::192.0.2.1', '', 'unknown'])('is else all of it: %j', (address) => {
    expect(networkOf(address)).toBe(address);
  });
});

describe('who sent a request', () => {
  const from = (forwarded: string | undefined, remoteAddress: string | undefined = '10.0.0.1') =>
    ({ headers: { 'x-forwarded-for': forwarded }, socket: { remoteAddress } }) as unknown as IncomingMessage;

  it.each([
    ['192.0.2.1', '192.0.2.1'],
    ['198.51.100.7, 192.0.2.1', '192.0.2.1'],
    ['198.51.100.7,192.0.2.1 ', '192.0.2.1'],
    ['192.0.2.1:51234', '192.0.2.1'],
    ['2001:db8::1', '2001:db8::1'],
    ['[2001:db8::1]:443', '2001:db8::1'],
    ['[2001:db8::1]', '2001:db8::1'],
    ['192.0.2.1, ', '10.0.0.1'],
    ['', '10.0.0.1'],
    [undefined, '10.0.0.1'],
  ])('is whom a proxy of ours adds, and the peer where it adds nobody: %j', (forwarded, address) => {
    expect(addressOf(from(forwarded), true)).toBe(address);
  });

  it('is the peer where there is no proxy, whatever the request says', () => {
    expect(addressOf(from('192.0.2.1'), false)).toBe('10.0.0.1');
    const { headers } = from('192.0.2.1');
    expect(addressOf({ headers, socket: {} } as IncomingMessage, false)).toBe('');
  });
});

describe('ranges of addresses', () => {
  it('have those inside', () => {
    const ranges = new Ranges(['10.0.0.0/8', 'fd00::/8', '192.0.2.1/32']);
    for (const address of ['10.255.0.1', 'fd12::1', '192.0.2.1', '::ffff:10.0.0.1']) {
      expect([address, ranges.includes(address)]).toEqual([address, true]);
    }
    for (const address of ['11.0.0.1', 'fe80::1', '192.0.2.2', '::ffff:11.0.0.1', '', 'unknown', '10.0.0']) {
      expect([address, ranges.includes(address)]).toEqual([address, false]);
    }
  });

  it.each(['10.0.0.0', '10.0.0.0/33', '10.0.0/8', 'fd00::/129', '/8', '10.0.0.0/', '10.0.0.0/-1', 'none'])(
    'are not written %j',
    (text) => {
      expect(isRange(text)).toBe(false);
    },
  );
});
