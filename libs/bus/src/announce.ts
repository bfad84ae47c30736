/** Typed calls for the topics of one user (docs/protocols/inthe-am.md). */
import { ownTopic, type PayloadOf, type UserTopicName } from '@posthorn/contracts';
import type { Receipt } from './port.js';
import type { PublishOptions, PubSub } from './pubsub.js';

/** What is announced on a topic: its payload, whose `username` can be left out, and can be no other one. */
export type Announcement<Name extends UserTopicName, Username extends string> = Omit<
  PayloadOf<Name>,
  'username'
> &
  (PayloadOf<Name> extends { username: string } ? { readonly username?: NoInfer<Username> } : unknown);

/**
 * Publishes on the topic of a user: `announce(pubsub, 'personal', 'alice', { title, message })`.
 * @throws ProblemError as `publish`; RangeError for another topic
 */
export async function announce<Name extends UserTopicName, const Username extends string>(
  pubsub: Pick<PubSub, 'global'>,
  name: Name,
  username: Username,
  message: Announcement<Name, Username>,
  options?: PublishOptions,
): Promise<Receipt> {
  const payload = name === 'incoming_trello_change' ? message : { username, ...message };
  return pubsub.global.topic(ownTopic(name, username).name).publish(payload, options);
}
