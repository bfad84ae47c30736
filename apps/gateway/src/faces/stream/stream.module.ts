/** Event streams: Server-Sent Events (docs/protocols/inthe-am.md, "Event stream"). */
import { Module } from '@nestjs/common';
import { OpenStreams } from './open-streams.js';
import { StreamController } from './stream.controller.js';

@Module({ controllers: [StreamController], providers: [OpenStreams] })
export class StreamModule {}
