import { Controller } from '@nestjs/common';
import { MessagePattern, Payload } from '@nestjs/microservices';
import {
  type ApiTokenItem,
  type ApiTokenPage,
  type CheckTokenReply,
  CheckTokenRequest,
  IssueTokenRequest,
  ListTokensRequest,
  type RevokeTokenReply,
  RevokeTokenRequest,
  TOKEN_CALLS,
} from '@posthorn/contracts';
import { Revoking } from '../revoking.js';
import { Tokens } from './tokens.js';

/** The calls about API tokens. */
@Controller()
export class TokensController {
  constructor(
    private readonly tokens: Tokens,
    private readonly revoking: Revoking,
  ) {}

  @MessagePattern(TOKEN_CALLS.issue)
  issue(@Payload() request: IssueTokenRequest): Promise<ApiTokenItem> {
    return this.tokens.issue(request);
  }

  @MessagePattern(TOKEN_CALLS.list)
  list(@Payload() request: ListTokensRequest): Promise<ApiTokenPage> {
    return this.tokens.list(request);
  }

  @MessagePattern(TOKEN_CALLS.revoke)
  revoke(@Payload() request: RevokeTokenRequest): Promise<RevokeTokenReply> {
    return this.revoking.revokeApiToken(request);
  }

  @MessagePattern(TOKEN_CALLS.check)
  check(@Payload() request: CheckTokenRequest): Promise<CheckTokenReply> {
    return this.tokens.check(request);
  }
}
