/**
 * WebSocket close codes (docs/protocols/courier.md). `reconnect`: whether a client should come back with its
 * position; where it is false, coming back unchanged would end the same way.
 */
export const CLOSE = {
  normal: { code: 1000, reason: 'normal', reconnect: false },
  protocol: { code: 1002, reason: 'protocol error', reconnect: false },
  policy: { code: 1008, reason: 'too many malformed frames', reconnect: false },
  tooLarge: { code: 1009, reason: 'frame too large', reconnect: false },
  restart: { code: 1012, reason: 'service restart', reconnect: true },
  tokenExpired: { code: 4401, reason: 'token expired', reconnect: true },
  tokenRevoked: { code: 4401, reason: 'token revoked', reconnect: false },
  slowConsumer: { code: 4408, reason: 'slow consumer', reconnect: true },
  silent: { code: 4409, reason: 'no answer to ping', reconnect: true },
} as const;

/** One way in which the server ends a connection. */
export type Close = (typeof CLOSE)[keyof typeof CLOSE];
