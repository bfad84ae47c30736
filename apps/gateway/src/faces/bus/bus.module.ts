/** Tryton's bus: long polling (docs/protocols/tryton.md). */
import { Module } from '@nestjs/common';
import { BusController } from './bus.controller.js';
import { WaitingPolls } from './waiting-polls.js';

@Module({ controllers: [BusController], providers: [WaitingPolls] })
export class BusModule {}
