/** The face for API tokens (docs/protocols/livestorm.md, "API tokens"). */
import { Module } from '@nestjs/common';
import { TokensController } from './tokens.controller.js';

@Module({ controllers: [TokensController] })
export class TokensModule {}
