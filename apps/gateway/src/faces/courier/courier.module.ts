/** The Courier face: REST `/v1/*`, the signed socket URL, and the socket (docs/protocols/courier.md). */
import { Module } from '@nestjs/common';
import { GatewayCore } from '../../core.js';
import { AudienceController } from './audience.controller.js';
import { CourierGateway } from './courier.gateway.js';
import { HookController } from './hook.controller.js';
import { PublishRates } from './publish-rates.js';
import { SignController } from './sign.controller.js';
import { TopicController } from './topic.controller.js';

@Module({
  controllers: [AudienceController, TopicController, HookController, SignController],
  providers: [
    CourierGateway,
    {
      provide: PublishRates,
      inject: [GatewayCore],
      useFactory: ({ config }: GatewayCore) => new PublishRates(config),
    },
  ],
  // One user has one rate, whatever calls it publishes by.
  exports: [PublishRates],
})
export class CourierModule {}
