/** The spans of events, by OpenTelemetry's conventions for messaging. */
import { type Scope, type SpanAttributes, STREAMS, type Topic } from '@posthorn/contracts';

/** Of a topic's name only the catalogue's template is told: the rest may hold a user's id, or a secret. */
export function nameOf(operation: string, topic: Topic): string {
  return topic.entry ? `${operation} ${topic.entry.name}` : operation;
}

/** What of an event stands in its spans. */
export interface TracedEvent {
  readonly audience: string;
  readonly topic: Topic;
  /** Absent for an ephemeral event. */
  readonly scope?: Scope;
  readonly id?: string | undefined;
}

/** @param operation `send`, `process` or `receive`, as the conventions name them */
export function attributesOf(operation: string, { audience, topic, scope, id }: TracedEvent): SpanAttributes {
  return {
    'messaging.system': 'nats',
    'messaging.operation.type': operation,
    'messaging.operation.name': operation,
    'messaging.destination.name': scope && STREAMS[scope].name,
    'messaging.destination.template': topic.entry?.name,
    'messaging.message.id': id,
    'posthorn.audience': audience,
  };
}
