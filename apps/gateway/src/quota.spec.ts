import { describe, expect, it } from '@jest/globals';
import {
  ProblemError,
  parseTopic,
  type Quota,
  type ReportUsageReply,
  type ReportUsageRequest,
} from '@posthorn/contracts';
import { metered, Quotas } from './quota.js';

const MIDNIGHT = Date.parse('2027-03-02T00:00:00Z');
const MINUTE = 60_000;

/** Gateways at a clock of their own, and somebody who adds up what they report. */
function day(quota: Partial<Quota> = {}, start = MIDNIGHT - 10 * MINUTE) {
  let now = start;
  const requests: ReportUsageRequest[] = [];
  const registry = {
    quota: { publishes: null, bytes: null, ...quota } as Quota,
    requests,
    async report(request: ReportUsageRequest): Promise<ReportUsageReply> {
      const others = request.usage.map(({ audience }) => {
        const latest = new Map<string, { publishes: number; bytes: number }>();
        for (const { process, day, usage } of requests) {
          const told = usage.find((one) => one.audience === audience);
          if (told && process !== request.process && day === request.day) latest.set(process, told);
        }
        const all = [...latest.values()];
        return {
          audience,
          publishes: all.reduce((sum, { publishes }) => sum + publishes, 0),
          bytes: all.reduce((sum, { bytes }) => sum + bytes, 0),
        };
      });
      requests.push(request);
      return { quota: registry.quota, others };
    },
  };
  return {
    registry,
    pass: (ms: number) => {
      now += ms;
    },
    gateway() {
      const quotas = new Quotas(() => now);
      const problem = (audience = 'acme') => quotas.refusal(quotas.meter(audience));
      return {
        report: (call = registry.report) => quotas.report(call),
        problem,
        refusal: (audience?: string) => problem(audience)?.code,
        /** Publishes until it is refused, or as often as is said. */
        publish(times: number, bytes = 100, audience = 'acme') {
          let accepted = 0;
          for (; accepted < times && !problem(audience); accepted++) quotas.meter(audience).count(bytes);
          return accepted;
        },
      };
    },
  };
}

const away = () => Promise.reject(new Error('nobody answers'));

describe('the quota of an audience', () => {
  it('of publishes is kept to the last one', async () => {
    const { gateway } = day({ publishes: 5 });
    const one = gateway();
    one.publish(1);
    await one.report();
    expect(one.publish(10)).toBe(4);
    expect(one.refusal()).toBe('publish_quota');
  });

  it('of bytes is used up by the event that reaches it', async () => {
    const { gateway } = day({ bytes: 250 });
    const one = gateway();
    one.refusal();
    await one.report();
    expect(one.publish(10, 100)).toBe(3);
    expect(one.refusal()).toBe('storage_quota');
  });

  it('is of that audience alone', async () => {
    const { gateway } = day({ publishes: 1 });
    const one = gateway();
    one.publish(1);
    await one.report();
    expect([one.refusal('acme'), one.refusal('other')]).toEqual(['publish_quota', undefined]);
  });

  it('is shared by all gateways, which know of each other with their next report', async () => {
    const { gateway } = day({ publishes: 10 });
    const [one, two] = [gateway(), gateway()];
    one.publish(6);
    await one.report();
    two.publish(1);
    await two.report();
    expect(two.publish(10)).toBe(3);
    await two.report();
    one.publish(1);
    await one.report();
    expect([one.refusal(), two.refusal()]).toEqual(['publish_quota', 'publish_quota']);
  });

  it('lets everything pass until the registry has said what it is', async () => {
    const { gateway } = day({ publishes: 1 });
    const one = gateway();
    expect(one.publish(1_000)).toBe(1_000);
    await one.report();
    expect(one.refusal()).toBe('publish_quota');
  });

  it('is no limit where there is none', async () => {
    const { gateway } = day();
    const one = gateway();
    one.publish(1);
    await one.report();
    expect(one.publish(1_000, 1e12)).toBe(1_000);
  });

  it('can be raised during the day: a refused publish is enough to hear of it', async () => {
    const { registry, gateway } = day({ publishes: 1 });
    const one = gateway();
    one.publish(1);
    await one.report();
    expect(one.refusal()).toBe('publish_quota');
    registry.quota = { publishes: 2, bytes: null };
    await one.report();
    expect(one.publish(5)).toBe(1);
  });
});

describe('a day', () => {
  it('ends at midnight UTC, and a refusal says in how many seconds', async () => {
    const { gateway, pass } = day({ publishes: 1 });
    const one = gateway();
    one.publish(1);
    await one.report();
    expect(one.problem()).toMatchObject({
      code: 'publish_quota',
      retryAfter: 600,
      detail: 'The audience may publish 1 events a day, and has: again at 2027-03-02T00:00:00.000Z',
    });
    pass(10 * MINUTE - 1);
    expect(one.refusal()).toBe('publish_quota');
    pass(1);
    expect(one.publish(5)).toBe(1);
  });

  it('does not come back where the clock is set back', async () => {
    const { gateway, pass } = day({ publishes: 1 }, MIDNIGHT);
    const one = gateway();
    one.publish(1);
    await one.report();
    pass(-MINUTE);
    expect(one.refusal()).toBe('publish_quota');
  });

  it('is not told of what others had taken in the day before', async () => {
    const { registry, gateway, pass } = day({ publishes: 2 });
    const [one, two] = [gateway(), gateway()];
    two.publish(2);
    await two.report();
    one.publish(1);
    await one.report(async (request) => {
      const reply = await registry.report(request);
      pass(10 * MINUTE);
      one.publish(1);
      return reply;
    });
    expect(one.publish(5)).toBe(1);
  });
});

describe('a report', () => {
  it('tells of audiences for which something was published or tried since the last one', async () => {
    const { registry, gateway } = day();
    const one = gateway();
    one.publish(3, 100, 'acme');
    one.refusal('other');
    await one.report();
    await one.report();
    one.publish(1, 100, 'acme');
    await one.report();
    expect(registry.requests.map(({ usage }) => usage)).toEqual([
      [
        { audience: 'acme', publishes: 3, bytes: 300 },
        { audience: 'other', publishes: 0, bytes: 0 },
      ],
      [{ audience: 'acme', publishes: 4, bytes: 400 }],
    ]);
  });

  it('that fails is made up for by the next, with what came meanwhile', async () => {
    const { registry, gateway } = day();
    const one = gateway();
    one.publish(2);
    await expect(one.report(away)).rejects.toThrow('nobody answers');
    one.publish(1);
    await one.report();
    expect(registry.requests.map(({ usage }) => usage)).toEqual([
      [{ audience: 'acme', publishes: 3, bytes: 300 }],
    ]);
  });

  it('that fails leaves what is known: quotas are kept without the registry', async () => {
    const { gateway } = day({ publishes: 3 });
    const one = gateway();
    one.publish(1);
    await one.report();
    one.publish(1);
    await expect(one.report(away)).rejects.toThrow();
    expect(one.publish(5)).toBe(1);
    expect(one.refusal()).toBe('publish_quota');
  });

  it('misses nothing that is published while it is on its way', async () => {
    const { registry, gateway } = day();
    const one = gateway();
    one.publish(1);
    await one.report(async (request) => {
      one.publish(1);
      return registry.report(request);
    });
    await one.report();
    expect(registry.requests.map(({ usage }) => usage[0]?.publishes)).toEqual([1, 2]);
  });

  it('comes in parts that fit a message', async () => {
    const { registry, gateway } = day();
    const one = gateway();
    for (let i = 0; i < 2_500; i++) one.publish(1, 100, `audience-${i}`);
    await one.report();
    expect(registry.requests.map(({ usage }) => usage.length)).toEqual([1_000, 1_000, 500]);
  });
});

describe('a metered publisher', () => {
  const draft = {
    audience: 'acme',
    topic: parseTopic('a'),
    scope: 'global' as const,
    message: {},
    principal: 'user:ann',
    source: '/user/ann',
  };
  const receipt = { id: 'x', position: { epoch: 'e', sequence: 1 }, duplicate: false, bytes: 500 };

  it('counts what was stored, and neither repeats nor failures', async () => {
    const { registry } = day();
    const quotas = new Quotas();
    const outcomes = [
      async () => receipt,
      async () => ({ ...receipt, duplicate: true }),
      away,
      async () => receipt,
    ];
    const publisher = metered({ publish: () => outcomes.shift()!(), isEphemeral: () => false }, quotas);
    await Promise.allSettled([1, 2, 3, 4].map(() => publisher.publish(draft)));
    await quotas.report(registry.report);
    expect(registry.requests[0]?.usage).toEqual([{ audience: 'acme', publishes: 2, bytes: 1_000 }]);
  });

  it('takes no more at once than are left, and gives back what was not stored', async () => {
    const { registry } = day({ publishes: 3 });
    const quotas = new Quotas();
    const answers: (() => void)[] = [];
    const publisher = metered(
      {
        publish: () =>
          new Promise((_, reject) =>
            answers.push(() => reject(new ProblemError('unavailable', 'no answer'))),
          ),
        isEphemeral: () => false,
      },
      quotas,
    );
    quotas.refusal(quotas.meter('acme'));
    await quotas.report(registry.report);
    const codes = async (publishes: Promise<unknown>[]) =>
      (await Promise.allSettled(publishes)).map((one) => one.status === 'rejected' && one.reason.code);
    for (let round = 0; round < 2; round++) {
      const taken = [1, 2, 3].map(() => publisher.publish(draft));
      expect(await codes([publisher.publish(draft)])).toEqual(['publish_quota']);
      for (const answer of answers.splice(0)) answer();
      expect(await codes(taken)).toEqual(['unavailable', 'unavailable', 'unavailable']);
    }
  });

  it('rejects, and does not throw, where the quota is used up', async () => {
    const { registry } = day({ publishes: 1 });
    const quotas = new Quotas();
    const publisher = metered({ publish: async () => receipt, isEphemeral: () => false }, quotas);
    await publisher.publish(draft);
    await quotas.report(registry.report);
    await expect(publisher.publish(draft)).rejects.toMatchObject({ code: 'publish_quota', status: 429 });
  });

  it('neither counts nor refuses what is ephemeral', async () => {
    const { registry } = day({ publishes: 1 });
    const quotas = new Quotas();
    const bus = { bytes: 0, ephemeral: true };
    const publisher = metered(
      {
        publish: async () => ({ ...receipt, bytes: bus.bytes }),
        isEphemeral: async () => bus.ephemeral,
      },
      quotas,
    );
    await publisher.publish(draft);
    await quotas.report(registry.report);
    Object.assign(bus, { bytes: 500, ephemeral: false });
    await publisher.publish(draft);
    await expect(publisher.publish(draft)).rejects.toMatchObject({ code: 'publish_quota' });
    Object.assign(bus, { bytes: 0, ephemeral: true });
    await publisher.publish(draft);
    expect(registry.requests[0]?.usage).toEqual([{ audience: 'acme', publishes: 0, bytes: 0 }]);
  });

  it('hands on publishes in the order in which they came', async () => {
    const order: unknown[] = [];
    const publisher = metered(
      {
        async publish({ id }) {
          order.push(id);
          return receipt;
        },
        isEphemeral: () => false,
      },
      new Quotas(),
    );
    await Promise.all(['a', 'b', 'c'].map((id) => publisher.publish({ ...draft, id })));
    expect(order).toEqual(['a', 'b', 'c']);
  });
});
