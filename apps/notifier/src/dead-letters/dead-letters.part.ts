import { storeRedrive } from '@posthorn/bus/platform';
import { onceUntil, Routine } from '@posthorn/service';
import { consumerName, WORKERS } from '../events-server.js';
import type { Part, Parts } from '../parts.js';
import { DeadLettersController } from './dead-letters.controller.js';
import { DeadLetters } from './dead-letters.js';
import { LetterStore } from './letter-store.js';
import { Projection } from './projection.js';
import { Redriver } from './redriver.js';

/** How often is looked for letters that nobody told of, in ms. */
const LOOK_MS = 10_000;
/** The pause after a look that failed. */
const RETRY_MS = 2_000;

export interface DeadLettersPart extends Part {
  /** Looks for letters that wait for managers, some of whom were set. */
  managersSet(): void;
}

/** Dead letters: listed, redriven and deleted by admins, and redriven by themselves once what they wait for is there. */
export function openDeadLetters({ service, config, nats, bus, source, metrics }: Parts): DeadLettersPart {
  const { logger, shutdown } = service;
  const { waiting, unlisted, redriven } = metrics.letters;
  const store = new LetterStore(source);
  const failing = onceUntil(logger, {
    begins: 'dead letters cannot be redriven',
    ends: 'dead letters are redriven again',
  });
  const ending = new AbortController();
  const redriver = new Redriver({
    store,
    publish: (letter) => storeRedrive(bus.js, letter),
    redriven: (count) => redriven.inc(count),
    signal: ending.signal,
  });
  const routine = new Routine({
    everyMs: LOOK_MS,
    retryMs: RETRY_MS,
    run: async () => {
      await redriver.run();
      waiting.set(await store.waiting());
      unlisted.set(await projection.lag());
      await store.purgeSome();
    },
    report: (error) => {
      if (error) failing.begin({ reason: String(error) });
      else failing.end();
    },
  });
  const look = () => routine.soon();
  const projection = new Projection({
    nc: nats.connection,
    bus,
    store,
    logger,
    consumer: consumerName('dead-letters', config.instance),
    instance: config.instance,
    worker: consumerName('notifier', config.instance),
    batching: new Set(WORKERS.map((worker) => consumerName(worker, config.instance))),
    waiting: look,
  });
  routine.start();
  look();
  shutdown.on('finish in flight', 'dead letters', async () => {
    ending.abort();
    await Promise.all([routine.stop(), projection.close()]);
  });
  return {
    controllers: [DeadLettersController],
    providers: [{ provide: DeadLetters, useValue: new DeadLetters({ source, store, marked: look }) }],
    managersSet: look,
  };
}
