-- labels: what each SKU was worth in its outcome window, and whether that made it a hit of its group.
-- Only windows that had closed at the call's moment count. `problem` names the groups from which nothing can be learned.
-- Grain: sku_id.
-- Reads: catalog, groups (sku_id, within_group), reports, given_outcomes (sku_id, value, known_at), scope.
with
current_reports as (
    select * from reports
    where superseded_at is null
),

closed as (
    select
        catalog.sku_id,
        groups.within_group,
        catalog.launched_at,
        epoch(catalog.launched_at) + scope.test_seconds as opens,
        epoch(catalog.launched_at) + scope.test_seconds + scope.outcome_seconds as closes
    from catalog
    inner join groups on catalog.sku_id = groups.sku_id
    cross join scope
    where epoch(catalog.launched_at) + scope.test_seconds + scope.outcome_seconds <= epoch(scope.as_of)
),

counted as (
    select
        closed.sku_id,
        sum({numerator}) as num,
        sum({denominator}) as den,
        max(epoch(current_reports.known_at)) as last_known
    from closed
    inner join current_reports on closed.sku_id = current_reports.sku_id
    where
        epoch(current_reports.period_start) >= closed.opens
        and epoch(current_reports.period_start) < closed.closes
    group by closed.sku_id
),

computed as (
    select
        closed.*,
        case
            when scope.outcomes_given then given_outcomes.value
            when scope.metric_is_rate then cast(counted.num as double) / nullif(cast(counted.den as double), 0)
            -- A SKU of which no report came sold nothing; one that was seen without the metric was not measured.
            when counted.sku_id is null then 0
            else cast(counted.num as double)
        end as value,
        -- A label is known once its window has closed and the last report that it counts has come.
        greatest(
            closed.closes,
            coalesce(
                case when scope.outcomes_given then epoch(given_outcomes.known_at) else counted.last_known end,
                closed.closes
            )
        ) as known_second
    from closed
    cross join scope
    left join counted on closed.sku_id = counted.sku_id
    left join given_outcomes on closed.sku_id = given_outcomes.sku_id
),

known as (
    select computed.*
    from computed
    cross join scope
    where value is not null and known_second <= epoch(scope.as_of)
),

placed as (
    select
        known.*,
        count(*) over (partition by within_group) as group_skus,
        min(value) over (partition by within_group) as lowest,
        max(value) over (partition by within_group) as highest,
        rank() over (partition by within_group order by value desc nulls last) as place,
        rank() over (partition by within_group order by value asc nulls last) as place_from_below
    from known
),

judged as (
    select
        sku_id,
        within_group,
        launched_at,
        value,
        make_timestamp(cast(known_second * 1000000 as bigint)) as known_at,
        group_skus,
        -- Share of the group that is worth less, ties in the middle: 0 < standing < 1.
        (place_from_below + group_skus - place) / (2.0 * group_skus) as standing,
        case
            when scope.min_value is not null then value >= scope.min_value
            else place <= ceil(scope.top_share * group_skus - 1e-9) and value > lowest
        end as hit,
        case
            when group_skus < scope.min_group then 'too_small'
            when lowest = highest and scope.min_value is null then 'all_equal'
        end as problem
    from placed
    cross join scope
)

select * from judged
