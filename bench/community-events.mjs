/** Community events as a busy deployment makes them, the same for everybody who asks. */

const COMMUNITIES = 200;
const USERS = 20_000;

/** Events of each kind come in the same rhythm: eleven notifications come of ten events. */
const RHYTHM = 10;
const NOTIFICATIONS = 11;

/** @param {number} index */
const community = (index) => `community-${index % COMMUNITIES}`;
/** @param {number} index */
const user = (index) => `user-${(index * 7_919) % USERS}`;

/** The managers of each community, by its name. */
export const managersOf = new Map(
  Array.from({ length: COMMUNITIES }, (_, index) => [
    community(index),
    [`manager-${index}`, `deputy-${index}`],
  ]),
);

/**
 * How many notifications come of so many events.
 * @param {number} events a multiple of ten
 */
export function notificationsOf(events) {
  return (events / RHYTHM) * NOTIFICATIONS;
}

/**
 * @param {number} count
 * @returns {Generator<{ topic: import('../libs/contracts/src/index.js').TopicName, payload: any }>}
 */
export function* communityEvents(count) {
  for (let index = 0; index < count; index++) yield event(index);
}

/**
 * @param {number} index
 * @returns {{ topic: import('../libs/contracts/src/index.js').TopicName, payload: any }}
 */
function event(index) {
  const about = { author: user(index), target: user(index + 1), community: community(index) };
  switch (index % RHYTHM) {
    case 0:
      return { topic: 'community:join', payload: { ...about, target: about.author } };
    case 1:
      return { topic: 'community:join', payload: { ...about, actor: 'manager' } };
    case 2:
    case 8:
      return { topic: 'community:membership:invite', payload: about };
    case 3:
      return { topic: 'community:membership:request', payload: about };
    case 4:
      return { topic: 'community:membership:request:refuse', payload: about };
    case 5:
      return { topic: 'notification:external', payload: { ...external(index), target: user(index) } };
    case 6:
      return { topic: 'community:leave', payload: about };
    case 7: {
      const invited = index - 5;
      const payload = { author: user(invited), target: user(invited + 1), community: community(invited) };
      return { topic: 'community:membership:invitation:cancel', payload };
    }
    default:
      return {
        topic: 'notification:external',
        payload: { ...external(index), target: [user(index), { _id: user(index + 1) }] },
      };
  }
}

/** @param {number} index */
function external(index) {
  return {
    author: user(index + 2),
    action: 'has shared',
    object: { objectType: 'file', id: `file-${index}` },
    link: `/files/${index}`,
    icon: 'fa-file',
  };
}
