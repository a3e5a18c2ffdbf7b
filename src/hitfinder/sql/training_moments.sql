-- training_moments: every SKU at its launch and at each later step of its test window, on a grid that all SKUs share, so that
-- a batch launched over several days is seen as a list would show it: young and old SKUs side by side.
-- Grain: as_of, sku_id.
-- Reads: catalog, steps (step: 0, 1, 2, ...), scope.
with
grid as (
    select
        catalog.sku_id,
        catalog.launched_at,
        scope.test_seconds,
        scope.as_of as now,
        epoch(catalog.launched_at) as launch_second,
        floor(epoch(catalog.launched_at) / scope.step_seconds) * scope.step_seconds
        + steps.step * scope.step_seconds as grid_second,
        steps.step
    from catalog
    cross join steps
    cross join scope
),

placed as (
    select
        sku_id,
        launch_second,
        test_seconds,
        now,
        case when step = 0 then launch_second else grid_second end as moment_second
    from grid
),

in_test as (
    select distinct
        make_timestamp(cast(moment_second * 1000000 as bigint)) as as_of,
        sku_id
    from placed
    where
        moment_second >= launch_second
        and moment_second <= launch_second + test_seconds
        and moment_second <= epoch(now)
)

select * from in_test
