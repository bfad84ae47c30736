import { manyBusyTopics, manyPublishers, manyTopics, oneTopic } from './workloads/fanout.mjs';
import { latency } from './workloads/latency.mjs';
import { memory } from './workloads/memory.mjs';
import { notifications } from './workloads/notifications.mjs';
import { poller } from './workloads/poller.mjs';
import { polls } from './workloads/polls.mjs';
import { publish } from './workloads/publish.mjs';
import { storm } from './workloads/storm.mjs';

/** All of them, in the order in which they are run. */
export const workloads = [
  oneTopic,
  manyPublishers,
  manyTopics,
  manyBusyTopics,
  latency,
  memory,
  storm,
  publish,
  notifications,
  polls,
  poller,
];
