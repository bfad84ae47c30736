/** Tryton's `notify` over REST (docs/protocols/tryton.md, "Server SDK"). */
import { Module } from '@nestjs/common';
import { CourierModule } from '../courier/courier.module.js';
import { PopupController } from './popup.controller.js';

@Module({ imports: [CourierModule], controllers: [PopupController] })
export class NotifyModule {}
