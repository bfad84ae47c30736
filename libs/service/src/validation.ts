import { type ValidationError, ValidationPipe, type ValidationPipeOptions } from '@nestjs/common';
import { type Finding, ProblemError } from '@posthorn/contracts';

/**
 * The findings of class-validator, one per broken constraint, each with the JSON pointer of the property.
 * The values themselves are left out: they may be secrets.
 */
export function findingsOf(errors: readonly ValidationError[], parent = ''): Finding[] {
  return errors.flatMap(({ property, constraints = {}, children = [] }) => {
    const path = `${parent}/${property.replaceAll('~', '~0').replaceAll('/', '~1')}`;
    const own = Object.entries(constraints).map(([name, message]) => ({
      path,
      message: name === 'whitelistValidation' ? `${property} is not known` : message,
    }));
    return [...own, ...findingsOf(children, path)];
  });
}

/** The validation pipe of every HTTP and RPC body: findings become `request_invalid`. */
export function validationPipe(options: ValidationPipeOptions = {}): ValidationPipe {
  return new ValidationPipe({
    transform: true,
    whitelist: true,
    ...options,
    exceptionFactory: (errors) =>
      new ProblemError('request_invalid', 'The request does not have the expected form', {
        errors: findingsOf(errors),
      }),
  });
}
