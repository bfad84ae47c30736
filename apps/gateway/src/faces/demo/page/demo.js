/** Two people of one room on one page: with the client SDK, and nothing else that talks to the gateway. */
import { part } from './dom.js';
import { Pane } from './pane.js';
import { Record } from './record.js';
import { Room } from './room.js';

const people = [
  { id: 'ada', name: 'Ada' },
  { id: 'grace', name: 'Grace' },
];

const room = new Room();
const record = new Record(people);
const panes = people.map((me) => new Pane({ me, people, room, record }));

await begin();

/** The room begins where the first who comes begins to listen; who comes later reads its history from there. */
async function begin() {
  const [first, ...others] = panes;
  showAddress();
  if (room.since === undefined) {
    const began = await first?.follow();
    if (began) room.begin(began);
    showAddress();
  } else void first?.follow(room.since);
  for (const pane of others) void pane.follow(room.since);
}

function showAddress() {
  part(document, '#room-name').textContent = room.id.slice(0, 8);
  const here = /** @type {HTMLAnchorElement} */ (part(document, '#same-room'));
  here.href = location.href;
  const anew = /** @type {HTMLAnchorElement} */ (part(document, '#new-room'));
  anew.href = location.pathname;
}
