import { Controller } from '@nestjs/common';
import { MessagePattern, Payload } from '@nestjs/microservices';
import {
  DEAD_LETTER_CALLS,
  type DeadLetterPage,
  DeadLetterRequest,
  type DeadLetterView,
  ListDeadLettersRequest,
  type RedriveReply,
  RedriveRequest,
} from '@posthorn/contracts';
import { DeadLetters } from './dead-letters.js';

/** The calls about dead letters. */
@Controller()
export class DeadLettersController {
  constructor(private readonly letters: DeadLetters) {}

  @MessagePattern(DEAD_LETTER_CALLS.list)
  list(@Payload() request: ListDeadLettersRequest): Promise<DeadLetterPage> {
    return this.letters.list(request);
  }

  @MessagePattern(DEAD_LETTER_CALLS.show)
  show(@Payload() request: DeadLetterRequest): Promise<DeadLetterView> {
    return this.letters.show(request);
  }

  @MessagePattern(DEAD_LETTER_CALLS.redrive)
  redrive(@Payload() request: DeadLetterRequest): Promise<RedriveReply> {
    return this.letters.redrive(request);
  }

  @MessagePattern(DEAD_LETTER_CALLS.redriveAll)
  redriveAll(@Payload() request: RedriveRequest): Promise<RedriveReply> {
    return this.letters.redriveAll(request);
  }

  @MessagePattern(DEAD_LETTER_CALLS.delete)
  delete(@Payload() request: DeadLetterRequest): Promise<null> {
    return this.letters.delete(request);
  }
}
