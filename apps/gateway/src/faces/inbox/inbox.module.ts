/** The inbox face: notifications of the calling user (docs/protocols/esn.md, "Inbox"). */
import { Module } from '@nestjs/common';
import { InboxController } from './inbox.controller.js';
import { NotifyController } from './notify.controller.js';

@Module({ controllers: [InboxController, NotifyController] })
export class InboxModule {}
