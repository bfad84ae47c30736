/** The server SDK in Nest: one `PubSub` for the application, closed with it. */
import {
  type DynamicModule,
  type FactoryProvider,
  Inject,
  Logger,
  Module,
  type ModuleMetadata,
  type OnApplicationShutdown,
  type Provider,
} from '@nestjs/common';
import type { PubSub, PubSubOptions } from '../pubsub.js';
import { connectPubSub } from '../pubsub.js';

/** The token of the application's `PubSub`: `app.get<PubSub>(PUBSUB)`. */
export const PUBSUB = Symbol('PubSub');

/** Injects the application's `PubSub` into a constructor parameter or property. */
export const InjectPubSub = (): ReturnType<typeof Inject> => Inject(PUBSUB);

/** Options that come from other providers, such as the application's configuration. */
export interface PosthornAsyncOptions
  extends Pick<ModuleMetadata, 'imports'>,
    Pick<FactoryProvider<PubSubOptions>, 'useFactory' | 'inject'> {}

const OPTIONS = Symbol('PubSubOptions');

/**
 * Global: to be imported once, in the root module. Connects in the background, so that the application starts while
 * the bus is away. Closes when the application does, after its servers and transports; for signals the application
 * calls `enableShutdownHooks()`.
 */
@Module({})
export class PosthornModule implements OnApplicationShutdown {
  constructor(@Inject(PUBSUB) private readonly pubsub: PubSub) {}

  /** What goes wrong where nobody waits goes to Nest's logger, unless `onError` takes it. */
  static forRoot(options: PubSubOptions): DynamicModule {
    return define([], { provide: OPTIONS, useValue: options });
  }

  static forRootAsync({ imports = [], inject = [], useFactory }: PosthornAsyncOptions): DynamicModule {
    return define(imports, { provide: OPTIONS, inject, useFactory });
  }

  onApplicationShutdown(): Promise<void> {
    return this.pubsub.close();
  }
}

function define(imports: NonNullable<ModuleMetadata['imports']>, options: Provider): DynamicModule {
  const pubsub: FactoryProvider<PubSub> = { provide: PUBSUB, inject: [OPTIONS], useFactory: connect };
  return { module: PosthornModule, global: true, imports, providers: [options, pubsub], exports: [PUBSUB] };
}

function connect(options: PubSubOptions): PubSub {
  const logger = new Logger('Posthorn');
  const onError = (error: unknown, topic: string) =>
    logger.error(`Subscription of ${topic}: ${String(error)}`);
  return connectPubSub({ onError, ...options });
}
