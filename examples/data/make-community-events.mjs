/**
 * Writes community-events.ndjson: 1,000 community events of four audiences, one in fifty malformed. The same
 * seed gives the same file. Each line says where an event goes (`audience`, `topic`, `id`), its `payload` (or
 * `raw` text for what is no JSON), and who has to be notified of it: `recipients`, or null for a malformed one.
 *
 *     node examples/data/make-community-events.mjs > examples/data/community-events.ndjson
 */
const AUDIENCES = ['acme', 'acme.corp', 'köln.example', '日本-team'];
const USERS = [
  'alice',
  'bob',
  'zoë',
  '田中',
  'Łukasz',
  'o.hara@example.org',
  'party 🎉',
  'star*',
  'a>b',
  '42',
  'Ünal',
  'дарья',
];
const COMMUNITIES = ['chess-club', 'Schachverein «König»', '将棋部', 'book club', 'r.u.n', '7'];

let state = 20_260_101;
/** A whole number below n (mulberry32). */
function below(n) {
  state = (state + 0x6d2b79f5) | 0;
  let t = Math.imul(state ^ (state >>> 15), 1 | state);
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
  return ((t ^ (t >>> 14)) >>> 0) % n;
}
const pick = (list) => list[below(list.length)];
const others = (user) => pick(USERS.filter((candidate) => candidate !== user));

/** An id in one of the forms that real producers write. */
function form(id) {
  if (/^\d+$/.test(id) && below(2)) return Number(id);
  return pick([id, id, { _id: id }, { id }]);
}

/** Who manages a community; the example sets the same through PUT /v1/communities/<id>/managers. */
export function managersOf(community) {
  const first = COMMUNITIES.indexOf(community);
  return [USERS[first], USERS[(first + 5) % USERS.length]];
}

const VALID = [
  ['community:membership:invite', ({ target }) => ({ recipients: [target] })],
  ['community:membership:request', ({ community }) => ({ recipients: managersOf(community) })],
  ['community:membership:request:refuse', ({ target }) => ({ recipients: [target] })],
  [
    'community:join',
    ({ author, community }) => ({ recipients: managersOf(community).filter((id) => id !== author) }),
  ],
  ['community:join', ({ target }) => ({ recipients: [target], payload: { actor: 'manager' } })],
  ['community:leave', () => ({ recipients: [] })],
  ['community:membership:invitation:decline', () => ({ recipients: [] })],
  ['community:membership:request:cancel', () => ({ recipients: [] })],
  [
    'community:membership:request',
    ({ target }) => ({ recipients: [target], payload: { managers: [form(target)] } }),
  ],
  [
    'notification:external',
    ({ target }) => {
      const second = others(target);
      return {
        recipients: [target, second],
        payload: {
          target: [form(target), form(second)],
          action: 'shared «a document» 📄',
          object: 'minutes.pdf',
          link: 'https://example.org/doc?a=1&b=2',
          icon: 'fa-file',
        },
      };
    },
  ],
];

/** One kind of mistake after the other. */
const MISTAKES = [
  (payload) => ({ payload: { ...payload, target: undefined } }),
  (payload) => ({ payload: { ...payload, target: '' } }),
  () => ({ payload: ['not', 'an', 'object'] }),
  (payload) => ({ raw: JSON.stringify(payload).slice(0, -1) }),
  (payload) => ({ payload: { ...payload, target: { name: 'nobody' } } }),
];

function line(n) {
  const author = pick(USERS);
  const target = others(author);
  const community = pick(COMMUNITIES);
  const event = { audience: pick(AUDIENCES), id: `event-${String(n).padStart(4, '0')}` };
  const payload = { author: form(author), target: form(target), community: form(community) };
  if (n % 50 === 49) {
    const mistake = MISTAKES[Math.floor(n / 50) % MISTAKES.length](payload);
    return { ...event, topic: 'community:membership:invite', ...mistake, recipients: null };
  }
  const [topic, make] = VALID[n % VALID.length];
  const { recipients, payload: more } = make({ author, target, community });
  return { ...event, topic, payload: { ...payload, ...more }, recipients };
}

if (process.argv[1]?.endsWith('make-community-events.mjs')) {
  for (let n = 0; n < 1_000; n++) console.log(JSON.stringify(line(n)));
}

export { COMMUNITIES };
