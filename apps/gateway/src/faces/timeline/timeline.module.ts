/** The timeline face: activities of users and communities (docs/protocols/esn.md, "Timeline"). */
import { Module } from '@nestjs/common';
import { TimelineController } from './timeline.controller.js';

@Module({ controllers: [TimelineController] })
export class TimelineModule {}
