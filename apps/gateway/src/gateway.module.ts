/** The only public door. A face is a module of its own: removing one is deleting its folder and one line here. */
import { type DynamicModule, Global, Module } from '@nestjs/common';
import { GatewayCore } from './core.js';
import { BusModule } from './faces/bus/bus.module.js';
import { CatalogueModule } from './faces/catalogue/catalogue.module.js';
import { CommunitiesModule } from './faces/communities/communities.module.js';
import { CourierModule } from './faces/courier/courier.module.js';
import { DeadLettersModule } from './faces/dead-letters/dead-letters.module.js';
import { DemoModule } from './faces/demo/demo.module.js';
import { InboxModule } from './faces/inbox/inbox.module.js';
import { NotifyModule } from './faces/notify/notify.module.js';
import { RoomsModule } from './faces/rooms/rooms.module.js';
import { StreamModule } from './faces/stream/stream.module.js';
import { TimelineModule } from './faces/timeline/timeline.module.js';
import { TokensModule } from './faces/tokens/tokens.module.js';
import { ApiTokens } from './http/api-tokens.js';
import { ProbesController } from './http/probes.controller.js';

@Global()
@Module({})
export class GatewayModule {
  static around(core: GatewayCore): DynamicModule {
    return {
      module: GatewayModule,
      imports: [
        BusModule,
        CatalogueModule,
        CourierModule,
        InboxModule,
        NotifyModule,
        RoomsModule,
        CommunitiesModule,
        TimelineModule,
        DeadLettersModule,
        StreamModule,
        TokensModule,
        ...(core.config.demo ? [DemoModule] : []),
      ],
      controllers: [ProbesController],
      providers: [{ provide: GatewayCore, useValue: core }, ApiTokens],
      exports: [GatewayCore, ApiTokens],
    };
  }
}
