import { describe, expect, it } from '@jest/globals';
import { networkOf } from './network.js';

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

  it.each(['192.0.2.1', '::ffff:192.0.2.1', '', 'unknown'])('is else all of it: %j', (address) => {
    expect(networkOf(address)).toBe(address);
  });
});
