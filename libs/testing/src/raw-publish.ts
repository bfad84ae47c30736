import { once } from 'node:events';
import { connect } from 'node:net';

/**
 * Publishes bytes that no client library would send, as a foreign publisher can: the server looks neither at
 * headers nor at payloads. Resolves once the server has taken them.
 * @param headers the whole block, with its version line and the empty line at its end
 */
export async function rawPublish(
  nats: { readonly port: number },
  subject: string,
  headers: string,
  payload: string | Uint8Array,
): Promise<void> {
  const socket = connect(nats.port, '127.0.0.1');
  await once(socket, 'data');
  const head = Buffer.from(headers);
  const body = Buffer.from(payload);
  socket.write('CONNECT {"verbose":false,"headers":true}\r\n');
  socket.write(`HPUB ${subject} ${head.length} ${head.length + body.length}\r\n`);
  socket.write(Buffer.concat([head, body, Buffer.from('\r\nPING\r\n')]));
  await once(socket, 'data');
  socket.destroy();
}
