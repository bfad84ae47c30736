import 'reflect-metadata';
import { describe, expect, it } from '@jest/globals';
import { RequestMethod } from '@nestjs/common';
import { BusController } from '../faces/bus/bus.controller.js';
import { CatalogueController } from '../faces/catalogue/catalogue.controller.js';
import { CommunitiesController } from '../faces/communities/communities.controller.js';
import { AudienceController } from '../faces/courier/audience.controller.js';
import { HookController } from '../faces/courier/hook.controller.js';
import { SignController } from '../faces/courier/sign.controller.js';
import { TopicController } from '../faces/courier/topic.controller.js';
import { DeadLettersController } from '../faces/dead-letters/dead-letters.controller.js';
import { InboxController } from '../faces/inbox/inbox.controller.js';
import { NotifyController } from '../faces/inbox/notify.controller.js';
import { PopupController } from '../faces/notify/popup.controller.js';
import { RoomsController } from '../faces/rooms/rooms.controller.js';
import { StreamController } from '../faces/stream/stream.controller.js';
import { TimelineController } from '../faces/timeline/timeline.controller.js';
import { TokensController } from '../faces/tokens/tokens.controller.js';
import { OPENAPI } from './openapi.js';

const controllers = [
  BusController,
  CatalogueController,
  AudienceController,
  HookController,
  SignController,
  TopicController,
  InboxController,
  NotifyController,
  PopupController,
  RoomsController,
  CommunitiesController,
  TimelineController,
  DeadLettersController,
  StreamController,
  TokensController,
];

/** `GET /v1/topic` for each handler of a controller, as Nest would route it. */
function callsOf(controller: (typeof controllers)[number]): string[] {
  const base: string = Reflect.getMetadata('path', controller);
  const names = Object.getOwnPropertyNames(controller.prototype).filter((name) => name !== 'constructor');
  return names.flatMap((name) => {
    const handler = (controller.prototype as unknown as Record<string, object>)[name]!;
    const paths: string | string[] | undefined = Reflect.getMetadata('path', handler);
    if (paths === undefined) return [];
    const method = RequestMethod[Reflect.getMetadata('method', handler) as number];
    return [paths].flat().map((path) => {
      const whole = `/${base}/${path}`.replace(/\/+/g, '/').replace(/(.)\/$/, '$1');
      return `${method} ${whole.replace(/:(\w+)/g, '{$1}').replace('*', '{key}')}`;
    });
  });
}

describe('the OpenAPI document', () => {
  it('has every call of the controllers, and no other', () => {
    const documented = Object.entries(OPENAPI.paths).flatMap(([path, methods]) =>
      Object.keys(methods).map((method) => `${method.toUpperCase()} ${path}`),
    );
    expect(documented.sort()).toEqual(controllers.flatMap(callsOf).sort());
  });

  it('has a name of its own for each call', () => {
    const names = Object.values(OPENAPI.paths).flatMap((methods) =>
      Object.values(methods).map((operation) => (operation as { operationId?: string }).operationId),
    );
    expect(names).toContain('putNotificationsIdRead');
    expect(new Set(names).size).toBe(names.length);
  });

  it('refers to nothing that it does not hold', () => {
    const names = [...JSON.stringify(OPENAPI).matchAll(/#\/components\/schemas\/(\w+)/g)].map(
      ([, name]) => name,
    );
    expect(names.length).toBeGreaterThan(10);
    expect(Object.keys(OPENAPI.components.schemas)).toEqual(expect.arrayContaining(names));
  });
});
