-- reports: every signal that was known at the call's moment, with the moment from which a newer report replaced it.
-- Grain: sku_id, period_start, channel, creative_id, known_at.
-- Reads: signals, scope.
with
known as (
    select signals.*
    from signals
    cross join scope
    where signals.known_at <= scope.as_of and signals.period_start < scope.as_of
),

superseded as (
    select
        known.*,
        lead(known_at) over (
            partition by sku_id, period_start, channel, creative_id
            order by known_at asc nulls last
        ) as superseded_at
    from known
)

select * from superseded
