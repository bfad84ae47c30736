import { type DynamicModule, Module } from '@nestjs/common';
import { Calls } from './calls.js';
import { Communities } from './communities.js';
import { Events } from './events.js';
import { InboxReader } from './inbox.js';
import { Writer } from './writer.js';

@Module({ controllers: [Events] })
class EventsModule {}

@Module({ controllers: [Calls] })
class CallsModule {}

/** What comes over the stream, wired to what handles it. */
export function eventsModule(writer: Writer): DynamicModule {
  return { module: EventsModule, providers: [{ provide: Writer, useValue: writer }] };
}

/** The calls, wired to what answers them. */
export function callsModule(inbox: InboxReader, communities: Communities): DynamicModule {
  const providers = [
    { provide: InboxReader, useValue: inbox },
    { provide: Communities, useValue: communities },
  ];
  return { module: CallsModule, providers };
}
