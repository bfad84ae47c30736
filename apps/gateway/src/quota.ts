/**
 * What audiences may publish in a day (docs/protocols/events.md, "Quotas"). Each gateway counts what it took in
 * and tells the registry, which adds up and tells what came in elsewhere; nobody waits for that.
 */
import { randomUUID } from 'node:crypto';
import type { Bus } from '@posthorn/bus/platform';
import {
  ProblemError,
  REGISTRY_CALLS,
  type ReportUsageReply,
  type ReportUsageRequest,
  USAGE_PAGE,
  type Usage,
} from '@posthorn/contracts';
import { onceUntil, Routine, type RpcClient, type Service, type Tally } from '@posthorn/service';

const DAY = 86_400_000;
/** How often is reported what came in, in milliseconds: so much later a gateway knows of the others. */
const REPORT_EVERY = 1_000;

/** One audience today. */
class Meter {
  /** Stored through this process. */
  publishes = 0;
  bytes = 0;
  /** Publishes that are not answered yet: they may be stored. */
  pending = 0;
  /** Stored through the others, as far as is known. */
  others: Pick<Usage, 'publishes' | 'bytes'> = { publishes: 0, bytes: 0 };
  /** Whether somebody published, or tried to, since the last report. */
  active = false;

  constructor(readonly audience: string) {}

  /** Counts one event of so many bytes. */
  count(bytes: number): void {
    this.publishes += 1;
    this.bytes += bytes;
    this.active = true;
  }
}

/** Counts for each audience, and says when it has used up its day. Days are those of UTC. */
export class Quotas {
  readonly #clock: () => number;
  readonly #process = randomUUID();
  #limits = { publishes: Number.POSITIVE_INFINITY, bytes: Number.POSITIVE_INFINITY };
  #day: number;
  #meters = new Map<string, Meter>();

  /** @param clock milliseconds since 1970 */
  constructor(clock: () => number = Date.now) {
    this.#clock = clock;
    this.#day = Math.floor(clock() / DAY);
  }

  /** The meter of an audience for today. */
  meter(audience: string): Meter {
    const day = Math.floor(this.#clock() / DAY);
    // A clock that is set back does not bring back a day.
    if (day > this.#day) {
      this.#day = day;
      this.#meters = new Map();
    }
    let meter = this.#meters.get(audience);
    if (!meter) {
      meter = new Meter(audience);
      this.#meters.set(audience, meter);
    }
    return meter;
  }

  /** Why an audience may publish no more today; undefined while it may. Until the registry was heard it may. */
  refusal(meter: Meter): ProblemError | undefined {
    const { publishes, bytes } = this.#limits;
    meter.active = true;
    if (meter.publishes + meter.pending + meter.others.publishes >= publishes) {
      return this.#usedUp('publish_quota', `publish ${publishes} events`);
    }
    if (meter.bytes + meter.others.bytes >= bytes) {
      return this.#usedUp('storage_quota', `store ${bytes} bytes`);
    }
    return undefined;
  }

  /**
   * Tells what came in since the day began, of the audiences for which something did since the last report, and
   * takes what the others say. What a failed report was to tell is in the next one.
   * @returns whether there was anything to tell
   */
  async report(call: (request: ReportUsageRequest) => Promise<ReportUsageReply>): Promise<boolean> {
    const day = this.#day;
    const active = [...this.#meters.values()].filter((meter) => meter.active);
    for (let i = 0; i < active.length; i += USAGE_PAGE) {
      const page = active.slice(i, i + USAGE_PAGE);
      const usage = page.map(({ audience, publishes, bytes }) => ({ audience, publishes, bytes }));
      for (const meter of page) meter.active = false;
      try {
        this.#learn(day, await call({ process: this.#process, day, usage }));
      } catch (error) {
        for (const meter of page) meter.active = true;
        throw error;
      }
    }
    return active.length > 0;
  }

  #learn(day: number, { quota, others }: ReportUsageReply): void {
    this.#limits = {
      publishes: quota.publishes ?? Number.POSITIVE_INFINITY,
      bytes: quota.bytes ?? Number.POSITIVE_INFINITY,
    };
    if (day !== this.#day) return;
    for (const other of others) {
      const meter = this.#meters.get(other.audience);
      if (meter) meter.others = other;
    }
  }

  #usedUp(code: 'publish_quota' | 'storage_quota', what: string): ProblemError {
    const tomorrow = (this.#day + 1) * DAY;
    return new ProblemError(
      code,
      `The audience may ${what} a day, and has: again at ${new Date(tomorrow).toISOString()}`,
      { retryAfter: (tomorrow - this.#clock()) / 1_000 },
    );
  }
}

/** A publisher that takes no more than audiences may publish, and counts what was stored: once, if repeated. */
export function metered(bus: Pick<Bus, 'publish' | 'isEphemeral'>, quotas: Quotas): Pick<Bus, 'publish'> {
  return {
    async publish(draft) {
      const meter = quotas.meter(draft.audience);
      const refusal = quotas.refusal(meter);
      // What is not stored pushes nothing out.
      if (refusal && !(await bus.isEphemeral(draft.audience, draft.topic))) throw refusal;
      meter.pending += 1;
      try {
        const receipt = await bus.publish(draft);
        if (!receipt.duplicate && receipt.bytes > 0) meter.count(receipt.bytes);
        return receipt;
      } finally {
        meter.pending -= 1;
      }
    },
  };
}

/** What {@link keepReporting} works with. */
export interface ReportingParts {
  readonly quotas: Quotas;
  readonly rpc: RpcClient;
  readonly service: Service;
  readonly reports: Record<'done' | 'failed', Tally>;
}

/** Reports to the registry until the process ends, and then once more. */
export function keepReporting({ quotas, rpc, service, reports }: ReportingParts): void {
  const { logger, shutdown } = service;
  const alone = onceUntil(logger, {
    begins: 'the registry takes no usage: quotas are judged by what is known',
    ends: 'the registry takes usage again',
  });
  const run = async () => {
    if (!(await quotas.report((request) => rpc.call(REGISTRY_CALLS.reportUsage, request)))) return;
    reports.done.inc();
    alone.end();
  };
  const report = (err?: Error) => {
    if (!err) return;
    reports.failed.inc();
    alone.begin({ err });
  };
  const routine = new Routine({ everyMs: REPORT_EVERY, retryMs: REPORT_EVERY, run, report });
  routine.start();
  shutdown.on('flush', 'usage', async () => {
    await routine.stop();
    await run().catch(report);
  });
}
