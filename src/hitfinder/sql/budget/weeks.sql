-- budget_weeks: what was spent on each SKU and channel, week by week, and what came of it.
-- Week 0 is the seven days before the end of the channel's newest report of a spend: reports of one channel come later
-- than another's, and a week of which two days are missing is none.
-- Grain: sku_id, channel, week.
-- Reads: reports, scope.
with
current_reports as (
    select
        reports.sku_id,
        coalesce(reports.channel, '') as channel,
        epoch(reports.period_start) + scope.period_seconds as ended,
        epoch(scope.as_of) as now_second,
        reports.orders,
        reports.units,
        reports.revenue,
        reports.spend
    from reports
    cross join scope
    where reports.superseded_at is null
),

newest_spends as (
    select
        channel,
        max(now_second) as now_second,
        max(ended) as newest
    from current_reports
    where spend is not null
    group by channel
),

channel_ends as (
    select
        channel,
        -- A channel without a report for a week is not late: it has stopped.
        case when now_second - newest < 604800 then newest else now_second end as last_second
    from newest_spends
),

placed as (
    select
        current_reports.sku_id,
        current_reports.channel,
        cast(floor((channel_ends.last_second - current_reports.ended) / 604800) as bigint) as week,
        current_reports.orders,
        current_reports.units,
        current_reports.revenue,
        current_reports.spend
    from current_reports
    inner join channel_ends on current_reports.channel = channel_ends.channel
),

summed as (
    select
        sku_id,
        channel,
        week,
        sum(orders) as orders,
        sum(units) as units,
        sum(revenue) as revenue,
        sum(spend) as spend
    from placed
    where week >= 0
    group by sku_id, channel, week
)

select * from summed
