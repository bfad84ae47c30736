import { Column, Entity, PrimaryColumn } from 'typeorm';

/** What is known of a community. */
@Entity('community')
export class Community {
  @PrimaryColumn({ type: 'text' })
  audience!: string;

  @PrimaryColumn({ type: 'text' })
  id!: string;

  /** Null: not known. Known to be nobody is an empty list. */
  @Column({ type: 'text', array: true, nullable: true })
  managers!: string[] | null;

  /** The place in the stream at which the members were last set as a whole; null: never. */
  @Column({ name: 'members_ordinal', type: 'bigint', nullable: true })
  membersOrdinal!: string | null;
}
