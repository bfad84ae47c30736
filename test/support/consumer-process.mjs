/**
 * A process of a durable consumer: prints the id of each event that its handler gets. The options of its subscription
 * come as JSON.
 */
import { built } from '../../tools/checkout.mjs';

const { connectPubSub } = await built('libs/bus/src/index.js');
const [servers, topic, options = '{}'] = process.argv.slice(2);
const pubsub = connectPubSub({ servers, audience: 'acme', source: 'consumer' });
const take = (/** @type {unknown} */ _, /** @type {{ event: { id: string } }} */ { event }) => {
  process.stdout.write(`${event.id}\n`);
};
await pubsub.global.topic(topic).subscribe(take, JSON.parse(options)).ready;
process.stdout.write('ready\n');
