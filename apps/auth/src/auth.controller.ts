import { Controller } from '@nestjs/common';
import { MessagePattern, Payload } from '@nestjs/microservices';
import {
  AUTH_CALLS,
  type RevokeReply,
  RevokeRequest,
  type SignReply,
  SignRequest,
} from '@posthorn/contracts';
import { Revoking } from './revoking.js';
import { Signing } from './signing.js';

/** The calls of the auth app. */
@Controller()
export class AuthController {
  constructor(
    private readonly signing: Signing,
    private readonly revoking: Revoking,
  ) {}

  @MessagePattern(AUTH_CALLS.sign)
  sign(@Payload() request: SignRequest): Promise<SignReply> {
    return this.signing.sign(request);
  }

  @MessagePattern(AUTH_CALLS.revoke)
  revoke(@Payload() request: RevokeRequest): Promise<RevokeReply> {
    return this.revoking.revoke(request);
  }
}
