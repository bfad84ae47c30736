import { type DynamicModule, Module } from '@nestjs/common';
import { DataSource } from 'typeorm';
import { Audiences } from './audiences.js';
import { Calls } from './calls.js';
import { Projection } from './projection.js';
import { TOPICS_PER_AUDIENCE, Topics } from './topics.js';
import { Usages } from './usages.js';

/** What the calls work with; made, and ended, by whoever starts the registry. */
export interface RegistryParts {
  readonly source: DataSource;
  readonly projection: Projection;
  readonly topicsPerAudience: number;
  readonly usages: Usages;
}

@Module({})
class RegistryModule {}

/** Audiences, topics, what audiences publish, and the calls for them. */
export function registryModule({
  source,
  projection,
  topicsPerAudience,
  usages,
}: RegistryParts): DynamicModule {
  return {
    module: RegistryModule,
    controllers: [Calls],
    providers: [
      Audiences,
      Topics,
      { provide: DataSource, useValue: source },
      { provide: Projection, useValue: projection },
      { provide: TOPICS_PER_AUDIENCE, useValue: topicsPerAudience },
      { provide: Usages, useValue: usages },
    ],
  };
}
