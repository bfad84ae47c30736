/** The Courier face: REST `/v1/*`, the signed socket URL, and the socket (docs/protocols/courier.md). */
import { Module } from '@nestjs/common';
import { AudienceController } from './audience.controller.js';
import { CourierGateway } from './courier.gateway.js';
import { HookController } from './hook.controller.js';
import { SignController } from './sign.controller.js';
import { TopicController } from './topic.controller.js';

@Module({
  controllers: [AudienceController, TopicController, HookController, SignController],
  providers: [CourierGateway],
})
export class CourierModule {}
