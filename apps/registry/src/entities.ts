import { Column, Entity, PrimaryColumn, PrimaryGeneratedColumn } from 'typeorm';

/** A tenant. */
@Entity('audience')
export class Audience {
  @PrimaryGeneratedColumn('uuid')
  id!: string;

  @Column({ type: 'text' })
  name!: string;

  @Column({ name: 'created_at', type: 'timestamptz', insert: false })
  createdAt!: Date;

  @Column({ name: 'updated_at', type: 'timestamptz', insert: false })
  updatedAt!: Date;
}

/** A registered topic. The path is its identity, the name is how it was registered. */
@Entity('topic')
export class RegisteredTopic {
  @PrimaryGeneratedColumn('uuid')
  id!: string;

  @Column({ name: 'audience_id', type: 'uuid' })
  audienceId!: string;

  @Column({ type: 'text' })
  name!: string;

  @Column({ type: 'text' })
  path!: string;

  @Column({ type: 'json', nullable: true })
  schema!: object | null;

  /** Seconds. */
  @Column({ type: 'integer', nullable: true })
  retention!: number | null;

  @Column({ type: 'boolean' })
  durable!: boolean;

  @Column({ name: 'created_at', type: 'timestamptz', insert: false })
  createdAt!: Date;

  @Column({ name: 'updated_at', type: 'timestamptz', insert: false })
  updatedAt!: Date;
}

/** What is known of a stream, so that one that was restored or created anew is told apart. */
@Entity('stream')
export class StreamGeneration {
  @PrimaryColumn({ type: 'text' })
  stream!: string;

  /** As the server gives it: nanoseconds, which no PostgreSQL type keeps. */
  @Column({ type: 'text' })
  created!: string;

  @Column({ type: 'integer' })
  generation!: number;

  /** The highest last sequence ever seen in this generation. */
  @Column({
    name: 'highest_sequence',
    type: 'bigint',
    transformer: { from: Number, to: String },
  })
  highestSequence!: number;

  /** When the event of that sequence was stored; null when there is none. */
  @Column({ name: 'highest_time', type: 'text', nullable: true })
  highestTime!: string | null;
}
