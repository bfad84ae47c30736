/** Livestorm's rooms: the API by which servers publish into them (docs/protocols/livestorm.md). */
import { Module } from '@nestjs/common';
import { RoomsController } from './rooms.controller.js';

@Module({ controllers: [RoomsController] })
export class RoomsModule {}
