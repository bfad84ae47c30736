/** The inbox face: notifications of the calling user (docs/protocols/esn.md, "Inbox"). */
import { Module } from '@nestjs/common';
import { InboxController } from './inbox.controller.js';

@Module({ controllers: [InboxController] })
export class InboxModule {}
