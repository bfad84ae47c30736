import { describe, expect, it } from '@jest/globals';
import { ownTopic, parseTopic } from '../topic.js';
import { checkAgreement } from './agreement.js';
import { CATALOGUE } from './index.js';

const repeated = [...CATALOGUE.values()].filter(({ parameter }) => parameter?.repeated);

describe('topic and payload', () => {
  it('agree about the user in seven of the nine types of Inthe.AM, and nowhere else', () => {
    expect(repeated.map(({ name }) => name)).toEqual([
      ...[
        'personal',
        'local_sync',
        'changed_task',
        'log_message',
        'incoming_mail',
        'sync',
        'taskd.certificate',
      ],
    ]);
    for (const { name, payload } of repeated) {
      expect([name, payload.properties.username.type, payload.required.includes('username')]).toEqual([
        name,
        'string',
        true,
      ]);
      const topic = ownTopic(name, 'alice.smith');
      expect(checkAgreement(topic, { username: 'alice.smith' })).toEqual([]);
      for (const username of ['alice', 'Alice.Smith', 'bob', ''])
        expect(checkAgreement(topic, { username }).map(({ path }) => path)).toEqual(['/username']);
    }
  });

  it('need not, where the documents say nothing of it', () => {
    for (const topic of [
      'incoming_trello_change.alice',
      'user:alice',
      '__general__',
      'our/own',
      'community:join',
    ])
      expect(checkAgreement(parseTopic(topic), { username: 'bob' })).toEqual([]);
  });

  it('leave to the schema what is missing or no text', () => {
    for (const payload of [{}, { username: 5 }, null])
      expect(checkAgreement(parseTopic('personal.alice'), payload)).toEqual([]);
  });
});
