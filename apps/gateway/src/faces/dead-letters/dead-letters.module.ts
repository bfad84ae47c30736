/** The face for dead letters (docs/protocols/esn.md, "Dead letters"). */
import { Module } from '@nestjs/common';
import { DeadLettersController } from './dead-letters.controller.js';

@Module({ controllers: [DeadLettersController] })
export class DeadLettersModule {}
