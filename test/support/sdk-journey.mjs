/**
 * A program with the client SDK, for whatever Node runs it: `sdk-journey.mjs <module> <url> <token> <last>`. Follows
 * `news` until the message `n: <last>`, and the inbox; says on its output what it has seen, one JSON line each.
 */
const [, , module = '', url = '', token = '', last = ''] = process.argv;
const { Posthorn } = await import(module);

const tell = (/** @type {object} */ seen) => console.log(JSON.stringify(seen));
const native = 'WebSocket' in globalThis;
tell({ node: process.version, native });
const posthorn = new Posthorn({
  url,
  getToken: () => token,
  ...(native ? {} : { WebSocket: (await import('ws')).WebSocket }),
});

/** @type {number[]} */
const numbers = [];
/** @type {() => void} */
let complete = () => {};
const completed = new Promise((resolve) => {
  complete = () => resolve(undefined);
});
const news = posthorn.subscribe('news', (/** @type {{ n: number }} */ { n }) => {
  numbers.push(n);
  if (n === Number(last)) complete();
});
await news.ready;
const { unreadCount } = await posthorn.inbox.list();
tell({ transport: posthorn.state.transport, unreadCount });

await completed;
const { id } = await posthorn.publish('echo', { heard: numbers.length });
tell({ numbers, published: typeof id === 'string' });
posthorn.close();
