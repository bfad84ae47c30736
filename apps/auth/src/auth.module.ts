import { type DynamicModule, Module } from '@nestjs/common';
import { AuthController } from './auth.controller.js';
import { Revoking } from './revoking.js';
import { Signing } from './signing.js';

@Module({ controllers: [AuthController] })
class AuthModule {}

/** The calls, wired to what answers them. */
export function authModule(signing: Signing, revoking: Revoking): DynamicModule {
  const providers = [
    { provide: Signing, useValue: signing },
    { provide: Revoking, useValue: revoking },
  ];
  return { module: AuthModule, providers };
}
