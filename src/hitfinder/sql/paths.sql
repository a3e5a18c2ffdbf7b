-- paths: the decisions about each SKU that bear on whether its outcome could show itself.
-- Known at the call's moment, and taken before half of its outcome window was over: who is stopped later has shown
-- what it is worth. `place` counts a SKU's decisions from the last one.
-- Grain: sku_id, decided_at.
-- Reads: decisions, catalog, scope.
with
known as (
    select decisions.*
    from decisions
    cross join scope
    where decisions.decided_at <= scope.as_of
),

bearing as (
    select
        known.sku_id,
        known.decided_at,
        known.action,
        known.propensity,
        rank() over (partition by known.sku_id order by known.decided_at desc nulls last) as place
    from known
    inner join catalog on known.sku_id = catalog.sku_id
    cross join scope
    where epoch(known.decided_at) < epoch(catalog.launched_at) + scope.test_seconds + scope.outcome_seconds / 2
)

select * from bearing
