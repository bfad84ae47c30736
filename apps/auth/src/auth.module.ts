import { type DynamicModule, Module } from '@nestjs/common';
import { AuthController } from './auth.controller.js';
import { Revoking } from './revoking.js';
import { Signing } from './signing.js';
import { TokensController } from './tokens/tokens.controller.js';
import { Tokens } from './tokens/tokens.js';

@Module({ controllers: [AuthController, TokensController] })
class AuthModule {}

/** What answers the calls. */
export interface AuthParts {
  readonly signing: Signing;
  readonly revoking: Revoking;
  readonly tokens: Tokens;
}

/** The calls, wired to what answers them. */
export function authModule({ signing, revoking, tokens }: AuthParts): DynamicModule {
  const providers = [
    { provide: Signing, useValue: signing },
    { provide: Revoking, useValue: revoking },
    { provide: Tokens, useValue: tokens },
  ];
  return { module: AuthModule, providers };
}
